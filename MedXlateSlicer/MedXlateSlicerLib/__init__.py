"""What MedXlate's modules for 3D Slicer share: logic without widgets. Scene and nodes are arguments throughout."""
