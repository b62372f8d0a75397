"""Tests of salver.transport."""
