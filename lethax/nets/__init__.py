"""Networks: frozen dataclasses that make and apply nested dicts of weights."""

from lethax.nets.contextual import Contextual as Contextual
from lethax.nets.conv4 import Conv4 as Conv4
from lethax.nets.mlp import MLP as MLP
from lethax.nets.plain import PlainNet as PlainNet
from lethax.nets.resnet12 import ResNet12 as ResNet12
