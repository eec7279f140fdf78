# Registers the DTN backbones in MMDetection, whichever tool reads the config.
custom_imports = dict(imports=["dtn_det"], allow_failed_imports=False)
