from isometry.cli.main import main

main()
