"""The reference matches the code: each page is what `make docs` would write now."""

from pathlib import Path

import pytest

from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.contracts.settings_model import DaemonSettings, RoleSettings
from tools.markdown import said_below
from tools.reference import FOLDER, PAGES

MADE = sorted(PAGES)
WRITTEN = ["contract.md"]
"""Written by hand: `test_contract_page.py` compares it with the code."""


@pytest.mark.parametrize("name", MADE)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), f"{name} is out of date: make docs"


def test_there_is_no_other_page() -> None:
    assert sorted(file.name for file in Path(FOLDER).iterdir()) == sorted(MADE + WRITTEN)


@pytest.mark.parametrize("model", [DaemonSettings, RoleSettings, LifecycleRequest])
def test_every_key_has_its_sentence(model: type) -> None:
    assert [name for name, text in said_below(model).items() if not text and name in model.model_fields] == []  # type: ignore[attr-defined]
