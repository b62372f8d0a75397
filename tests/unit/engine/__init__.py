"""Tests of salver.engine."""
