"""WING: models made and tuned. So far: training from nothing on drawn scenes, by recipe (loop.py, recipe.py); data sets
made ready (data/), which needs no torch. So nothing is imported here.
"""
