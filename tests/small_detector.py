"""The cfg of a detector that is as small as can be: one convolution and one head, two classes, 32 x 32 pixels."""

CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters=7
size=8
stride=8
activation=linear
[yolo]
mask=0
anchors=12,12
classes=2
num=1
"""
