"""What maintainers measure. MOONWALK_INCLUDE=FILE names files with samplers and more, as include=FILE of commands."""

import conf.include  # noqa: F401  (runs these files before the modules of this folder are imported)
