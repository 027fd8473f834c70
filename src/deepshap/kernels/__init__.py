"""What is compiled, arrays in and arrays out: nothing here knows of models, rules or cells.

``numbers`` has the secants of single numbers, ``pairs`` the rules of all pairs in one pass, ``steps`` the steps of recurrent
layers for the CPU, by Numba, and ``steps_on_gpu`` the same by Triton. ``jit_threshold`` tells when there is work enough for them.
"""
