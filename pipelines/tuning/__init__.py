"""Tuning: chooses the settings of a service on labelled photos, for a recall or for a time."""
