"""`python -m trajtools`: the same as the command `trajtools`."""

from trajtools.cli import main

if __name__ == "__main__":
    main()
