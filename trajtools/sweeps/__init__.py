"""Many runs: exponent, training time and sharpness against hyper-parameters, and where the onset of chaos lies."""
