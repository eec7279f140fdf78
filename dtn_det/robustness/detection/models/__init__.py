"""Detectors of all libraries, loaded from the names that users give."""
