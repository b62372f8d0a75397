"""Tests of salver.api."""
