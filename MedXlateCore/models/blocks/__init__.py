"""Building blocks shared by the methods: Restormer blocks, attention, discriminators, initialisation."""
