"""The model of health that commands, pages and metrics show."""
