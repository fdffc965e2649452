"""`python -m avprep`: the same as the `avprep` command."""

from avprep.cli import main

main()
