"""`python -m trajtools`: the same as the command `trajtools`."""

from trajtools.cli import main

main()
