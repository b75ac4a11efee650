"""`python -m gastown_mail` is the command `gastown-mail`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the folder where it was started: nothing is imported from there

from gastown_mail.cli import main

if __name__ == "__main__":
    main()
