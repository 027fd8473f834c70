"""Explanations: arrays of attributions with the fields that describe them, and their forms as tables and files.

An explanation extends ``shap.Explanation``. Every array (values, data, ids, labels, standard errors) is stored with the axes of
``values`` that it runs along, so that one slice or sum changes all of them consistently.

- ``core``: slices, sums over time and features, and shap's arithmetic.
- ``fields``, ``forecasts``: the fields beside values, data and names.
- ``joint``: models with several inputs. ``concat``: rows of several explanations.
- ``uncertainty``: standard errors of values, and of their sums.
- ``interactions``: interaction values of pairs of players.
- ``labels``, ``grids``: labels as texts, and the channels of images.
- ``long_form``, ``storage``, ``html``: tables and xarray, Parquet files, and the summary in notebooks.
"""
