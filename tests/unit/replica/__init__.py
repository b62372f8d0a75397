"""Tests of salver.replica."""
