"""Tests of salver.lib."""
