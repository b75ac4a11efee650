"""Agents' sessions in tmux: look, start, end, poke; always fenced by the incarnation."""
