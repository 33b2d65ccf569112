"""The jobs a user asks for, each composed from the layers below; no terminal in here."""
