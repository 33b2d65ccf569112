"""The command line: arguments, messages and exit codes; no logic. Imports nothing heavy."""
