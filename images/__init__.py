"""Image sets.

MNIST_ROOT is defined here because this file can be imported without torch. conf repeats it.
"""

MNIST_ROOT = "data/MNIST/mnist_images"
