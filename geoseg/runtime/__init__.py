"""How tiles are run: threads on this machine or workers of a Dask cluster, with events on the way."""
