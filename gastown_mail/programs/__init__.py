"""Program profiles: what the screen of each agent's program means, as data."""
