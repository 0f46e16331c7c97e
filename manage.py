"""The authorization server's command line: `python manage.py VERB` (contract §11)."""

from authserver.commands import main

if __name__ == "__main__":
    main(prog_name="manage.py")
