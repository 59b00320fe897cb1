"""`python -m geoseg` is `geoseg`."""

from geoseg.cli.main import main

main()
