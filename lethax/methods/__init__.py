"""The methods: learners made of MAML's parts, LEO, and the table of all methods by name."""

from lethax.methods.alfa import ALFA as ALFA
from lethax.methods.imaml import Implicit as Implicit
from lethax.methods.l2f import Attenuator as Attenuator
from lethax.methods.leo import LEO as LEO
from lethax.methods.maml import MAML as MAML
from lethax.methods.mumomaml import CurveEncoder as CurveEncoder
from lethax.methods.mumomaml import ImageEncoder as ImageEncoder
from lethax.methods.parts import L2F as L2F
from lethax.methods.parts import build as build
from lethax.methods.registry import METHODS as METHODS
from lethax.methods.registry import Method as Method
from lethax.methods.registry import method_of as method_of
from lethax.methods.registry import register as register
from lethax.methods.registry import register_rule as register_rule
from lethax.methods.reptile import Reptile as Reptile
from lethax.rules import LSLR as LSLR
from lethax.rules import SGD as SGD
from lethax.rules import MetaSGD as MetaSGD
from lethax.rules import SignSGD as SignSGD
