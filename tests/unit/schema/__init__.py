"""Tests of salver.schema."""
