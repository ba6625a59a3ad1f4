"""ImageNet's VGG16 with BatchNorm as torchvision names it, such as `vgg16_bn-6c64b313.pth`."""

from semiseg_jax.convert.families.torchvision_vgg import family

FAMILY = family("vgg16_bn", 3)
