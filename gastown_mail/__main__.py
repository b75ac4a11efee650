"""`python -m gastown_mail` is the command `gastown-mail`."""

from gastown_mail.cli import main

if __name__ == "__main__":
    main()
