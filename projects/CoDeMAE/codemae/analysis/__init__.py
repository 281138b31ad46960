"""Pictures of what pretraining made of an encoder, one command each, with their figures as JSON beside them.

`spectrum`: singular values and effective rank. `pairs`: both images of pairs in one plane. `ssim`: how alike the
features of a place are in both sensors, against how alike the images are. `panels`: what is made of masked images.
Each is a module to be run: ``python -m mmovseg.projects.codemae.analysis.spectrum --help``.
"""
