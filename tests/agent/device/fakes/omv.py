"""`omv`: an RT1062 on firmware 4.8.1."""


def arch():
    return "OMVRT1060 32768 SDRAM"


def version_string():
    return "4.8.1"
