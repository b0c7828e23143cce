"""AudioSet's tags of dangers: features of the detector, weighted highest when the compact network is trained."""

PRIMARY_TAGS = ("Siren", "Screaming", "Baby cry, infant cry", "Gunshot, gunfire", "Glass", "Shatter", "Breaking")
DANGEROUS_TAGS = (
    *PRIMARY_TAGS, "Civil defense siren", "Police car (siren)", "Ambulance (siren)", "Fire engine, fire truck (siren)",
    "Emergency vehicle", "Yell", "Shout", "Children shouting", "Crying, sobbing", "Whimper", "Wail, moan",
    "Machine gun", "Fusillade", "Cap gun", "Explosion", "Burst, pop", "Boom", "Eruption", "Fireworks", "Firecracker",
    "Smash, crash", "Alarm", "Smoke detector, smoke alarm", "Fire alarm", "Alarm clock", "Car alarm", "Buzzer",
    "Foghorn", "Vehicle horn, car horn, honking", "Air horn, truck horn", "Toot", "Chainsaw", "Bark", "Dog", "Bow-wow",
    "Growling", "Yip", "Howl", "Fire", "Crackle", "Thunder", "Thunderstorm", "Knock", "Slam", "Skidding", "Tire squeal",
)  # fmt: skip
