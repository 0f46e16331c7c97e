"""`python -m authserver VERB`: what `manage.py` does, where the package is installed without a checkout."""

from authserver.commands import main

if __name__ == "__main__":
    main(prog_name="authserver")
