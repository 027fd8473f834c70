"""Explain data sets of any size, in parts that a run can resume.

``run.explain_dataset`` opens the data as a ``Source`` (``sources``), lets a ``RowExplainer`` explain one part after the other, in
this process, in others (``workers``) or on a Ray cluster (``ray_actors``), and writes each part as a Parquet file
(``folder``). The metadata of a part hold a fingerprint of everything that the values depend on (``fingerprint``), so that a run
resumes only what it began. ``explanation_dataset`` reads the parts; ``batch_explainer`` and ``ray`` explain within pipelines of
other libraries.
"""
