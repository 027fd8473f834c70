"""Whole data sets: explained in parts that are complete or not there, so that a run can be stopped and go on."""
