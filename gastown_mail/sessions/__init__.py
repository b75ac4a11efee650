"""Agents' sessions in tmux: find, start, end, poke; always fenced by the incarnation."""
