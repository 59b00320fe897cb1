"""Satellite products as they are delivered: folders and archives with bands, quality layers and metadata.

Each module is one reader of the entry point group `geoseg.readers`: `recognises(path)` looks at names or at
some bytes, `opened(path, options)` gives a reader.
"""
