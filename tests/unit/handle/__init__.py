"""Tests of salver.handle."""
