"""The mathematics: secants, rules and recurrent cells, once, for arrays of every framework. Derivations: docs/mathematics.md."""
