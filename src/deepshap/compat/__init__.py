"""Interfaces of other tools on the exact engine: shap's explainer, captum's classes and hand-written LSTM cells."""
