"""Image sets. The folder of MNIST is named here, where it can be imported without torch; conf repeats it."""

MNIST_ROOT = "data/MNIST/mnist_images"
