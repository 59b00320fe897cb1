"""Classes to polygons: components and their union over seams, outlines in integer pixels, one affine at the end."""
