"""The tests of Salver; CONTRIBUTING.md says which kind goes where."""
