"""Tests of salver.runtime."""
