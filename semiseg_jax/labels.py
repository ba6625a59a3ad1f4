"""The label convention shared by every room of the house."""

IGNORE = 255  # a pixel without a label: in files, on the device and in every loss
