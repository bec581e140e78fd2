"""The benchmark: the product beside a bare client, against the figures that the design promises."""
