"""Training several sites together: what is shared, how it is averaged, who trains when. Knows no engine."""
